"""What the evaluation tables report, as pure functions. Rates are in percent, distances in mm or pixels."""
