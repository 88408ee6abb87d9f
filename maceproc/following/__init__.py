"""Follow every packet and correct every ping: functions from tables to tables."""
