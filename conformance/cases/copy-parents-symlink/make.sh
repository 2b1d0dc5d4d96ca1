ln -s d l; ln -s top.txt t
