"""What is told of the program: metrics, alerts, the dashboard."""
