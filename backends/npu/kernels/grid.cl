// Where a work item's elements lie; other files include this one.

// This work item's element of a result that the grid goes through in order.
size_t result_place()
{
    return (get_global_id(2) * get_global_size(1) + get_global_id(1)) * get_global_size(0) + get_global_id(0);
}

// Where a number of four digits, of which the inner three run to n1, n2 and n3, leads by the steps of its digits.
size_t digits_place(size_t number, int n1, int n2, int n3, int step0, int step1, int step2, int step3)
{
    const size_t digit3 = number % n3, rest = number / n3, digit2 = rest % n2, digit1 = rest / n2 % n1;
    return rest / n2 / n1 * step0 + digit1 * step1 + digit2 * step2 + digit3 * step3;
}

// This work item's element of an operand that goes through the result's axes in six runs, outermost first, by a step
// each (0 where it repeats, negative where it is turned round). The grid: runs 5; 4; and the others as a number of four
// digits, of which the inner three run to n1, n2 and n3.
size_t runs_place(int n1, int n2, int n3, int step0, int step1, int step2, int step3, int step4, int step5)
{
    const size_t outer = digits_place(get_global_id(2), n1, n2, n3, step0, step1, step2, step3);
    return outer + get_global_id(1) * step4 + get_global_id(0) * step5;
}
