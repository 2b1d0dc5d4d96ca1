chmod 711 d; chmod 600 d/a.txt; printf 1 > x; chmod 4755 x; ln -s x l
