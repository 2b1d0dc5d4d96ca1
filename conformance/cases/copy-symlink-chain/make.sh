echo 1 > real; ln -s real c; ln -s c b; ln -s b a; mkdir -p r/s; echo 2 > r/s/f; mkdir p; ln -s ../r/s p/q
