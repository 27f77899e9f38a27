package docker

// SelfSigned is for the tests outside the package.
var SelfSigned = selfSigned
