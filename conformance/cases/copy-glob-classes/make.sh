for n in a1 b1 c1 aa; do echo $n > $n.txt; done; echo q > a1.tqt
