mkdir -p ../www; mkdir s; echo 1 > s/f; touch -d @1 s/f s; tar --format=ustar --sort=name --owner=3 --group=4 --numeric-owner -cf - s | gzip -n > ../www/a.tgz; rm -r s
