head -c 5000 /dev/zero | tr '\0' q > s; tar --owner=0 --group=0 --mtime=@1 --numeric-owner -cf - s | head -c 3000 > a.tar; rm s
