mkdir -p t/d; echo 1 > t/f; ln -s f t/a; ln -s /etc/hostname t/b; ln -s ../../.. t/c; ln -s none t/e; ln -s d t/g; ln -s l1 t/l1
