"""The mixer: six attention modules and two gates, and how it is grafted into a decoder layer."""
