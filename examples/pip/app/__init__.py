import words


def report(text):
    return f"{words.count(text)} words"
