// Package portable carries pipelines and runs from one skiff to another, in the
// format of api/bundle.
//
// An export is put together before its first byte is written: objects are
// spooled, files hashed, images saved, and only then is the manifest known that
// comes first. What is written afterwards is held against it, so a run that
// changes meanwhile breaks the export off.
//
// An import is a stranger's. Nothing of it is seen by anybody before all of it
// has been read and checked:
//
//	stage    contents go to a folder beside the artifacts (artifact.Stage)
//	check    every entry, every object, every reference; what is here already
//	note     journal.json in the stage says what is about to be given a place
//	publish  contents by one rename each, images to the engine
//	commit   all objects in one transaction: from here on it has happened
//	clear    the stage goes
//
// A process that dies before the commit leaves a journal, by which Recover takes
// back what was published; one that dies after it, a stage that is removed.
//
// The package knows engines by the objects in the store alone, and imports no
// other engine.
package portable
