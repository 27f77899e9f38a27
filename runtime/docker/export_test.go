package docker

// SelfSigned is for the tests outside the package.
var SelfSigned = selfSigned

// LabelImageVolume is for the tests with an engine.
const LabelImageVolume = labelImageVolume
