def double(number):
    return 2 * number


def triple(number):
    return 3 * number
