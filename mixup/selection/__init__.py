"""What goes into a release: ranking, the mix of distilled and original rows, licences."""
