// Package cli is skiff's command line: one file for each sub-command. It reads
// flags, speaks to a daemon through package client (or starts one through
// package daemon), and prints.
//
// Results go to the output, all else to the error stream. Exit codes: 0 done, 1
// failed, 2 refused before anything started, 130 cancelled.
package cli
