"""The same network in operators that a runtime has."""
