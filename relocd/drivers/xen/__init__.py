"""Xen, by way of xl: domains, and their way out (``xl migrate``, ``xl save -p``) and in (``xl restore -p``)."""
