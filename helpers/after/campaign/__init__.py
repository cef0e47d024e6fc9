"""The notebook as a campaign, through Dask: plan, session, cluster, runner, merge, comparison."""
