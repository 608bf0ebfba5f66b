"""The endpoints: each module has its handlers, and ``ENDPOINTS``, its rows of the route table."""
