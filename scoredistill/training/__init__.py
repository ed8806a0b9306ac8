"""Lightning modules, data, callbacks: the only place with Lightning beside the command line."""
