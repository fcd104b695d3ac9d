from tokenwatt.ring._twin import Ring as Ring
