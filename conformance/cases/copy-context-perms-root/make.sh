echo 1 > f; mkdir d; echo 2 > d/g; chown 123:456 f d 2>/dev/null || true
