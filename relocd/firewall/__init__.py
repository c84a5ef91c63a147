"""Who may reach the relocation port, in the terms of a packet filter, and what a rule set makes of it. Pure logic."""
