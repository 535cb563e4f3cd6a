"""Graph -> kernel calls -> Plan: fusion, layout of values in memory, what runs when and on which thread."""
