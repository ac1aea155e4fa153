// Package workspace compares what a guest has made of a copy-on-write share with the directory on the host, and applies
// to that what the user chooses.
//
// The guest is not believed. A path that it lists is gone along one directory at a time, below the directory that was
// shared and through no symbolic link; a file is written under another name and takes the place of the old one in one
// step; set-id bits, devices, pipes and sockets do not come over, nor links that lead out of the share; and what the
// rules of the share refuse is refused.
//
// Nothing of the host's is lost unseen. What has changed there since the sandbox was made is a conflict, and what changes
// between the look and the deed is found and put back.
package workspace
