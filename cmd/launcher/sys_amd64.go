package main

const (
	sysSetns     = 308
	sysRenameat2 = 316
)
