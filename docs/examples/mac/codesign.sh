#!/bin/sh
# A job for docs/mac-acceptance.md: signs with an identity of its own, in a keychain of its own, and shows whose
# keychains it sees.
set -eu

echo "keychains the job sees:"
security list-keychains
echo "where its default keychain is:"
security default-keychain

keychain=$HOME/Library/Keychains/acceptance.keychain-db
security create-keychain -p acceptance "$keychain"
security set-keychain-settings "$keychain"
security unlock-keychain -p acceptance "$keychain"
security list-keychains -d user -s "$keychain"

cat > request.cnf <<'END'
[req]
distinguished_name = name
x509_extensions = use
prompt = no
[name]
CN = ephemerd acceptance
[use]
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, codeSigning
END
/usr/bin/openssl req -x509 -newkey rsa:2048 -nodes -days 1 -config request.cnf -keyout key.pem -out cert.pem
/usr/bin/openssl pkcs12 -export -inkey key.pem -in cert.pem -passout pass:acceptance -out identity.p12
security import identity.p12 -k "$keychain" -f pkcs12 -P acceptance -T /usr/bin/codesign
security set-key-partition-list -S apple-tool:,apple:,codesign: -s -k acceptance "$keychain" > /dev/null

cp /usr/bin/true signed
codesign --force --sign "ephemerd acceptance" --keychain "$keychain" signed
codesign --display --verbose=2 signed
security delete-keychain "$keychain"
