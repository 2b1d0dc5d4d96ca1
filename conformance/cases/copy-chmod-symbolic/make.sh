chmod 640 top.txt; chmod 700 d/sub
