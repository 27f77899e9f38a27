// Package policy decides whether a container may be made as it stands. Docker's
// socket is root, so the check looks at the final configuration, the very
// structs that are sent, and not at what they were made from: a field that is
// not on the closed list must be zero, and one that a newer Docker adds is
// refused until somebody has thought about it.
//
// It owns no state but its rules. It must not import anything of skiff but the
// runtime's errors and runtime/docker/dockerapi.
package policy
