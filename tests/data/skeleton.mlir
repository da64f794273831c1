// A 3x3 convolution, its clamp, a 1x1 convolution, and a float layer that the programmable engine runs.
!a = !quant.uniform<i8:f32, 0.02:3>
!b = !quant.uniform<i8:f32, 0.05:-28>
!c = !quant.uniform<i8:f32, 0.04:5>
!w = !quant.uniform<i8:f32:3, {0.008, 0.009, 0.01, 0.011, 0.012, 0.013, 0.014, 0.015, 0.016, 0.017, 0.018, 0.019, 0.02, 0.021, 0.022, 0.023}>
builtin.module attributes {nacre.store = #nacre.store<"skeleton.safetensors">} {
  func.func @main(%x: tensor<1x24x20x3xf32> {nacre.name = "x"}) -> (tensor<1x24x20x8xf32> {nacre.name = "y"}) {
    %q = quant.qcast %x : tensor<1x24x20x3xf32> to tensor<1x24x20x3x!a> loc("x")
    %w = graph.constant #nacre.blob<"conv1.weight", "eb50b2ba79852cf57d24116a3bcd517b"> : tensor<3x3x3x16x!w> loc("conv1")
    %m = graph.constant dense<[1904470211, 1623306052, 1479124860, 1156328189, 1349787058, 2011059397, 1564503002, 2147361814, 1936352122, 1209005711, 1634264704, 1457916380, 1802571095, 1430268662, 1720305832, 1405595901]> : tensor<16xi32> loc("conv1")
    %s = graph.constant dense<-10> : tensor<16xi32> loc("conv1")
    %b = graph.constant dense<[-2577, -437, -2900, -1513, 189, 874, -646, -712, 2978, 1481, -753, 2361, 195, 2768, -663, 1517]> : tensor<16xi32> loc("conv1")
    %y = qnn.conv %q, %w, %m, %s, %b {strides = [1, 1], pads = [1, 1, 1, 1], dilations = [1, 1], ifm_zero = 3, ofm_zero = -28, nacre.source = #nacre.source<"conv1" [0, 3, 1, 2] * 0.05:-28>} : tensor<1x24x20x16x!b> loc("conv1")
    %r = qnn.clamp %y {low = -28, high = 90, nacre.source = #nacre.source<"relu1" [0, 3, 1, 2] * 0.05:-28>} : tensor<1x24x20x16x!b> loc("relu1")
    %w2 = graph.constant #nacre.blob<"conv2.weight", "d76eb8027fda4f702f667a321fcc7a73"> : tensor<1x1x16x8x!c> loc("conv2")
    %m2 = graph.constant dense<[1326427224, 1146062821, 1590933376, 1745893081, 1491434164, 2021005239, 1929451054, 1755816315]> : tensor<8xi32> loc("conv2")
    %s2 = graph.constant dense<-7> : tensor<8xi32> loc("conv2")
    %z = qnn.conv %r, %w2, %m2, %s2 {strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1], ifm_zero = -28, ofm_zero = 5, nacre.source = #nacre.source<"conv2" [0, 3, 1, 2] * 0.04:5>} : tensor<1x24x20x8x!c> loc("conv2")
    %d = quant.dcast %z : tensor<1x24x20x8x!c> to tensor<1x24x20x8xf32> loc("conv2")
    %g = graph.sigmoid %d {nacre.source = #nacre.source<"y" [0, 3, 1, 2]>} : tensor<1x24x20x8xf32> loc("sigmoid")
    func.return %g : tensor<1x24x20x8xf32>
  }
}
