"""The notebook as a campaign, through Dask: plan, sessions, cluster, runner, merge, comparison."""
