import unittest

from app import report


class Report(unittest.TestCase):
    def test_words_are_counted(self):
        self.assertEqual(report("one two"), "2 words")
