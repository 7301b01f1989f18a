"""Remote stores: artifacts and records that several machines share."""
