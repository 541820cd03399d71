"""The microscope over HTTP. See `app.create_app`."""
