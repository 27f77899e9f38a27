// Package dockerapi is the only door to a Docker engine: the calls that
// runtime/docker makes, the types they carry, and the classes of their errors.
//
// Nothing else in skiff imports a Docker client, so that another client library
// means another client.go and types.go and no other file. It must not import
// anything of skiff.
package dockerapi
