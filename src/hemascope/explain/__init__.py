"""Where a classifier looked: class activation maps, and the tests that tell a faithful map from a pretty one."""
