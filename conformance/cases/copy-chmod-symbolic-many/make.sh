chmod 4755 d/g; chmod 2711 d/e; chmod 1640 f
