#!/usr/bin/env bash
# A checkout and Python unit tests: a repository is made, cloned, and tested as CI does it.
set -euo pipefail

git config --global user.name quickstart
git config --global user.email quickstart@example.org
git config --global init.defaultBranch main

git init --quiet upstream
cat >upstream/temperature.py <<'PYTHON'
def celsius(fahrenheit):
    return (fahrenheit - 32) * 5 / 9
PYTHON
cat >upstream/test_temperature.py <<'PYTHON'
import unittest

from temperature import celsius


class Temperature(unittest.TestCase):
    def test_freezing(self):
        self.assertEqual(celsius(32), 0)

    def test_boiling(self):
        self.assertEqual(celsius(212), 100)


unittest.main()
PYTHON
git -C upstream add .
git -C upstream commit --quiet --message "Convert temperatures"

git clone --quiet "file://$PWD/upstream" checkout
cd checkout
git log --oneline
python3 test_temperature.py
