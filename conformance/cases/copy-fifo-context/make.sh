mkfifo p; echo 1 > f
