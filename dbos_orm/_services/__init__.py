"""What runs in the background while an application is launched."""
