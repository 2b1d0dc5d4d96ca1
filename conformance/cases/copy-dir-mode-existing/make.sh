chmod 700 d; chmod 750 d/sub
