"""Safe rollout: traffic goes from one deployment to another in steps, and back when the new one is worse."""
