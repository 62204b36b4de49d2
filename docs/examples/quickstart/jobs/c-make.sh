#!/usr/bin/env bash
# A C project: make builds it with the host's compiler and runs its tests.
set -euo pipefail

cat >sum.h <<'C'
int sum(const int *numbers, int count);
C
cat >sum.c <<'C'
#include "sum.h"

int sum(const int *numbers, int count) {
    int result = 0;
    for (int i = 0; i < count; i++)
        result += numbers[i];
    return result;
}
C
cat >test.c <<'C'
#include <assert.h>
#include <stdio.h>

#include "sum.h"

int main(void) {
    int numbers[] = {1, 2, 39};
    assert(sum(numbers, 3) == 42);
    assert(sum(numbers, 0) == 0);
    puts("2 tests passed");
    return 0;
}
C
cat >Makefile <<'MAKE'
CFLAGS = -O2 -Wall -Wextra -Werror
.PHONY: check
check: tests
	./tests
tests: test.o sum.o
	$(CC) -o $@ $^
test.o sum.o: sum.h
MAKE

make -j2 check
