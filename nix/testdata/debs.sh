# Downloads Debian's packages to $1/debs, with what they depend on, whatever the machine's own Debian has installed, and
# writes down which kernel it is. They come from where the machine's own packages do.
work=$1
shift
mkdir -p "$work"/{lists/partial,cache,debs/partial}
: > "$work/status"
mirror=$(apt-get indextargets --format '$(REPO_URI)' | awk '/\/debian\/?$/ && !found++')
[[ -n $mirror ]] || { echo "apt has no mirror of Debian here (an address that ends in /debian)" >&2; exit 1; }
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" > "$work/sources.list"
apt() {
	apt-get -qq -o Debug::NoLocking=true \
		-o APT::Architecture=amd64 -o APT::Architectures=amd64 -o APT::Sandbox::User=root \
		-o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
		-o Dir::State::Lists="$work/lists" -o Dir::State::Status="$work/status" \
		-o Dir::Cache="$work/cache" -o Dir::Cache::Archives="$work/debs" "$@"
}
apt update
apt --yes --no-install-recommends --download-only install "$@"
rm -rf "$work"/debs/{partial,lock}
cd "$work/debs"
kernel=$(ls linux-image-[0-9]*-cloud-amd64_*)
kernel=${kernel#linux-image-}
echo "${kernel%%_*}" > kernel
