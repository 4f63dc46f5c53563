// Serves HEDGES (whpress/hedges): linked with its DNAcode.cpp and RSecc.cpp, and run by hedges.py.
//   hedges encode|decode RATE LENGTH FOLDER [PACKETS]
// Strands are kept without primers. RATE is the number of a code rate in its table, and LENGTH counts no primers.
// What the pool's demonstration leaves open is here: strands are sorted into packets by the two bytes that they carry.
#include <chrono>
#include <cstring>
#include <fstream>
#include <iostream>
#include <sstream>

#include "nr3b.h"
#include "RSecc.h"
#include "DNAcode.h"

extern Int bytesperstrand, strandsperpacketmessage, messbytesperstrand, messbytesperpacket, strandIDbytes,
    strandrunoutbytes, totstrandlen, leftlen, rightlen, strandlen, strandsperpacket, strandsperpacketcheck;

static char before[] = "TCGAAGTCAGCGTGTATTGTATG", after[] = "TAGTGAGTGCGATTAAGCGTGTT";  // of its demonstration
static const char letters[] = "ACGT";
static const int fewest = 3;  // reads of a strand from which on their consensus is better than one of them

static double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

static void settle(int rate, int length) {  // the settings of its demonstration, but for rate and length
    const double rates[] = {0., 0.75, 0.6, 0.5, 1. / 3., 0.25, 1. / 6.};
    strandIDbytes = strandrunoutbytes = 2;
    Getparams_out known = getparams();
    setparams(8 * strandIDbytes, known.MAXSEQ, known.NSTAK, 1000000);
    setcoderate(rate, before, after);
    setdnaconstraints(12, 8, 4, 4);
    leftlen = rightlen = strlen(before);
    strandlen = length;
    totstrandlen = length + leftlen + rightlen;
    strandsperpacketmessage = strandsperpacket - strandsperpacketcheck;
    bytesperstrand = int(length * rates[rate] / 4.);
    messbytesperstrand = bytesperstrand - strandIDbytes - strandrunoutbytes;
    messbytesperpacket = strandsperpacket * messbytesperstrand;
}

static int encode_file(const std::string& folder) {
    std::ifstream file(folder + "/data", std::ios::binary);
    std::string data((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const size_t unit = strandsperpacketmessage * messbytesperstrand, packets = (data.size() + unit - 1) / unit;
    data.resize(packets * unit);
    std::vector<MatUchar> pool;
    const double begin = now();
    for (size_t number = 0; number < packets; ++number) {
        MatUchar packet(strandsperpacket, bytesperstrand, Uchar(0));
        for (int row = 0; row < strandsperpacket; ++row) {
            packet[row][0] = number, packet[row][1] = row;
            if (row < strandsperpacketmessage)
                std::memcpy(&packet[row][strandIDbytes], &data[number * unit + row * messbytesperstrand],
                            messbytesperstrand);
        }
        pool.push_back(messtodna(protectmesspacket(packet)));
    }
    std::cout << now() - begin << " " << packets << "\n";
    std::ofstream out(folder + "/strands");
    for (MatUchar& packet : pool)
        for (int row = 0; row < strandsperpacket; ++row) {
            for (int at = leftlen; at < totstrandlen - rightlen; ++at) out << letters[packet[row][at]];
            out << "\n";
        }
    return 0;
}

static int decode_file(const std::string& folder, size_t packets) {
    std::vector<MatUchar> found(packets, MatUchar(strandsperpacket, bytesperstrand, Uchar(0)));
    std::vector<MatUchar> erased(packets, MatUchar(strandsperpacket, bytesperstrand, Uchar(1)));
    std::vector<std::vector<bool>> taken(packets, std::vector<bool>(strandsperpacket, false));
    std::ifstream file(folder + "/received");
    std::vector<std::string> strands;
    std::string line, strand, read;
    for (int copies; std::getline(file, line);) {
        std::istringstream(line) >> strand >> copies >> read;
        strands.push_back(before + (copies < fewest ? read : strand) + after);
    }
    const double begin = now();
    for (const std::string& text : strands) {
        VecUchar bases(text.size());
        for (size_t at = 0; at < text.size(); ++at) bases[at] = std::strchr(letters, text[at]) - letters;
        Decode_out decoded = decode(bases, 8 * bytesperstrand);
        const int bytes = std::min(int(decoded.plaintext.size()), bytesperstrand);
        if (bytes < strandIDbytes) continue;
        const size_t number = decoded.plaintext[0], row = decoded.plaintext[1];
        if (number >= packets || row >= size_t(strandsperpacket) || taken[number][row]) continue;
        taken[number][row] = bytes == bytesperstrand;
        for (int at = 0; at < bytes; ++at) found[number][row][at] = decoded.plaintext[at], erased[number][row][at] = 0;
    }
    std::string data;
    for (size_t number = 0; number < packets; ++number) {
        VecUchar plain = extractplaintext(correctmesspacket(found[number], erased[number]).packet);
        data.append(reinterpret_cast<char*>(&plain[0]), plain.size());
    }
    std::cout << now() - begin << "\n";
    std::ofstream(folder + "/back", std::ios::binary) << data;
    return 0;
}

int main(int count, char** words) {
    if (count < 5) return 2;
    try {
        settle(std::stoi(words[2]), std::stoi(words[3]));
        if (std::string(words[1]) == "unit") {
            std::cout << strandsperpacketmessage * messbytesperstrand << " " << getversion() << "\n";
            return 0;
        }
        if (std::string(words[1]) == "encode") return encode_file(words[4]);
        return decode_file(words[4], std::stoul(words[5]));
    } catch (const std::exception& error) {
        std::cerr << error.what() << std::endl;
        return 1;
    }
}
