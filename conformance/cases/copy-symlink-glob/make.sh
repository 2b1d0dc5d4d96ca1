echo 1 > t; mkdir d; echo 2 > d/g; ln -s t l1; ln -s d l2
