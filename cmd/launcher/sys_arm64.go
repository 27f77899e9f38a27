package main

const (
	sysSetns     = 268
	sysRenameat2 = 276
)
