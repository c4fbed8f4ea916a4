"""Reading text: files, characters, ids and the order in which the network reads them."""
