chmod 700 d; chmod 1750 d/sub
