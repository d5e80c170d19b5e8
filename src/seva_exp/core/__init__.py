"""What everything else stands on: specs, records, the store, seeds, the machine."""
